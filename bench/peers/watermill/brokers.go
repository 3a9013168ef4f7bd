package main

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	topics "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	rabbit "github.com/rabbitmq/amqp091-go"
)

// Which messages the broker has, and how often.
type tally struct {
	message.Publisher
	sync.Mutex
	handled  int
	distinct map[string]struct{}
}

func (t *tally) Publish(topic string, messages ...*message.Message) error {
	if err := t.Publisher.Publish(topic, messages...); err != nil {
		return err
	}
	t.Lock()
	defer t.Unlock()
	for _, one := range messages {
		t.handled++
		t.distinct[one.UUID] = struct{}{}
	}
	return nil
}

func (t *tally) counts() (int, int) {
	t.Lock()
	defer t.Unlock()
	return t.handled, len(t.distinct)
}

// Says what goes wrong, and nothing else: the rest would cost time.
type spoken struct{ watermill.NopLogger }

func (spoken) Error(what string, err error, fields watermill.LogFields) {
	fmt.Fprintln(os.Stderr, what, err, fields)
}

func (s spoken) With(watermill.LogFields) watermill.LoggerAdapter { return s }

// A publisher that waits for each confirm, as its own option has it.
func rabbitmq(chosen settings) (message.Publisher, error) {
	config := amqp.NewDurablePubSubConfig(os.Getenv("SAGABUS_RABBITMQ_URL"), nil)
	config.Publish.ConfirmDelivery = true
	config.Publish.ChannelPoolSize = chosen.channels
	config.Marshaler = amqp.DefaultMarshaler{
		PostprocessPublishing: func(one rabbit.Publishing) rabbit.Publishing {
			if id, isText := one.Headers[amqp.DefaultMessageUUIDHeaderKey].(string); isText {
				one.MessageId = id
			}
			return one
		},
	}
	return amqp.NewPublisher(config, spoken{})
}

// A publisher that waits until all replicas have each record; its own settings wait for the leader.
func kafka(settings) (message.Publisher, error) {
	config := topics.DefaultSaramaSyncPublisherConfig()
	config.Producer.RequiredAcks = sarama.WaitForAll
	return topics.NewPublisher(topics.PublisherConfig{
		Brokers:               strings.Split(os.Getenv("SAGABUS_KAFKA_BROKERS"), ","),
		Marshaler:             identified{},
		OverwriteSaramaConfig: config,
	}, spoken{})
}

// Its own marshaler, with the identity where the bench reads it as well.
type identified struct{ topics.DefaultMarshaler }

func (m identified) Marshal(topic string, one *message.Message) (*sarama.ProducerMessage, error) {
	record, err := m.DefaultMarshaler.Marshal(topic, one)
	if err == nil {
		id := sarama.RecordHeader{Key: []byte("ce_id"), Value: []byte(one.UUID)}
		record.Headers = append(record.Headers, id)
	}
	return record, err
}

// Watermill's forwarder (Go): rows of a table go to RabbitMQ, each confirmed; at least once, in the
// order of one table. What is done stays, behind an offset.
//
// Called as `PEER DATABASE-URL MESSAGES EXCHANGE`, with the same words on its standard input and
// output as the programs in Rust beside it (see ../src/main.rs).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	rabbit "github.com/rabbitmq/amqp091-go"
)

// Longer than anybody needs for what one run hands out.
const patience = 300 * time.Second

// Messages in one call that adds them.
const part = 1_000

type charge struct {
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
	Note    string `json:"note"`
}

func nth(n int) charge {
	return charge{
		Account: fmt.Sprintf("account-%09d", n),
		Cents:   100,
		Note: "quarterly settlement of the standing order, booked by the clearing desk after " +
			"the usual review; see the attached statement for the details of every single line",
	}
}

type settings struct {
	tables   int
	batch    int           // 0: its default
	poll     time.Duration // 0: its default
	channels int           // 0: its default, a new one for each message
}

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

func main() {
	if len(os.Args) != 5 {
		fail(fmt.Errorf("PEER DATABASE-URL MESSAGES EXCHANGE"))
	}
	messages, err := strconv.Atoi(os.Args[3])
	fail(err)
	// As it comes but with confirms, its fastest with one table in order, and with many without.
	known := map[string]settings{
		"watermill-default": {tables: 1},
		"watermill":         {tables: 1, batch: 1_000, poll: 10 * time.Millisecond, channels: 1},
		"watermill-64":      {tables: 64, batch: 1_000, poll: 10 * time.Millisecond, channels: 64},
	}
	chosen, isKnown := known[os.Args[1]]
	if !isKnown {
		fail(fmt.Errorf("there is no peer `%s`", os.Args[1]))
	}
	fail(run(context.Background(), os.Args[2], messages, os.Args[4], chosen))
}

func run(ctx context.Context, url string, messages int, exchange string, chosen settings) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	config.MaxConns = 80
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	schema := sql.DefaultPostgreSQLSchema{SubscribeBatchSize: chosen.batch}
	if err = fill(sql.BeginnerFromPgx(pool), schema, messages, exchange, chosen.tables); err != nil {
		return err
	}
	if _, err = pool.Exec(ctx, "analyze"); err != nil {
		return err
	}
	to, err := broker(chosen)
	if err != nil {
		return err
	}
	seen := &tally{Publisher: to, distinct: make(map[string]struct{}, messages)}
	forwarders, err := prepare(pool, schema, seen, chosen)
	if err != nil {
		return err
	}
	orders := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err = orders.ReadString('\n'); err != nil {
		return err
	}
	started := time.Now()
	for _, one := range forwarders {
		go func() { fail(one.Run(ctx)) }()
	}
	left := -1
	for left != 0 && time.Since(started) < patience {
		time.Sleep(2 * time.Millisecond)
		// Counting rows costs the server: nobody does it before all are handled.
		if _, distinct := seen.counts(); distinct < messages {
			continue
		}
		if left, err = behind(ctx, pool, chosen.tables); err != nil {
			return err
		}
	}
	handled, distinct := seen.counts()
	line, err := json.Marshal(map[string]any{
		"seconds": time.Since(started).Seconds(), "handled": handled, "distinct": distinct, "left": left,
	})
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	_, err = orders.ReadString('\n')
	return err
}

func table(n int) string { return fmt.Sprintf("outgoing_%d", n) }

// Puts the messages there, each in the envelope that says where it goes.
func fill(db sql.ContextExecutor, schema sql.SchemaAdapter, messages int, exchange string, tables int) error {
	rows, err := sql.NewPublisher(db, sql.PublisherConfig{
		SchemaAdapter: schema, AutoInitializeSchema: true,
	}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	for n := 0; n < tables; n++ {
		out := forwarder.NewPublisher(rows, forwarder.PublisherConfig{ForwarderTopic: table(n)})
		for at := n; at < messages; at += part * tables {
			batch := make([]*message.Message, 0, part)
			for i := at; i < messages && len(batch) < part; i += tables {
				body, err := json.Marshal(nth(i))
				if err != nil {
					return err
				}
				batch = append(batch, message.NewMessage(watermill.NewUUID(), body))
			}
			if err = out.Publish(exchange, batch...); err != nil {
				return err
			}
		}
	}
	return nil
}

// A publisher that waits for each confirm, as its own option has it.
func broker(chosen settings) (message.Publisher, error) {
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
	return amqp.NewPublisher(config, watermill.NopLogger{})
}

func prepare(pool *pgxpool.Pool, schema sql.SchemaAdapter, to message.Publisher, chosen settings) ([]*forwarder.Forwarder, error) {
	var all []*forwarder.Forwarder
	for n := 0; n < chosen.tables; n++ {
		from, err := sql.NewSubscriber(sql.BeginnerFromPgx(pool), sql.SubscriberConfig{
			SchemaAdapter:    schema,
			OffsetsAdapter:   sql.DefaultPostgreSQLOffsetsAdapter{},
			PollInterval:     chosen.poll,
			InitializeSchema: true,
		}, watermill.NopLogger{})
		if err != nil {
			return nil, err
		}
		if err = from.SubscribeInitialize(table(n)); err != nil {
			return nil, err
		}
		one, err := forwarder.NewForwarder(from, to, watermill.NopLogger{}, forwarder.Config{
			ForwarderTopic: table(n),
		})
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// How many messages lie behind what is written down as done.
func behind(ctx context.Context, pool *pgxpool.Pool, tables int) (int, error) {
	left := 0
	for n := 0; n < tables; n++ {
		count := fmt.Sprintf(`select count(*) from "watermill_%[1]s" where "offset" > coalesce((select
			max(offset_acked) from "watermill_offsets_%[1]s"), 0)`, table(n))
		part := 0
		if err := pool.QueryRow(ctx, count).Scan(&part); err != nil {
			return 0, err
		}
		left += part
	}
	return left, nil
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

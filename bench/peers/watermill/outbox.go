package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Longer than anybody needs for what one run hands out.
const patience = 300 * time.Second

// Messages in one call that adds them.
const part = 1_000

// The same text in every message as the bench's own have.
const note = "quarterly settlement of the standing order, booked by the clearing desk after " +
	"the usual review; see the attached statement for the details of every single line"

type charge struct {
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
	Note    string `json:"note"`
}

func nth(n int) charge {
	return charge{Account: fmt.Sprintf("account-%09d", n), Cents: 100, Note: note}
}

// Tables of messages for one target.
type outbox struct {
	pool   *pgxpool.Pool
	schema sql.DefaultPostgreSQLSchema
	tables int
	target string
}

func table(n int) string { return fmt.Sprintf("outgoing_%d", n) }

// Makes the tables.
func (o outbox) initialize(poll time.Duration) error {
	for n := range o.tables {
		from, err := o.subscriber(poll)
		if err != nil {
			return err
		}
		if err = from.SubscribeInitialize(table(n)); err != nil {
			return err
		}
	}
	return nil
}

func (o outbox) subscriber(poll time.Duration) (*sql.Subscriber, error) {
	return sql.NewSubscriber(sql.BeginnerFromPgx(o.pool), sql.SubscriberConfig{
		SchemaAdapter:  o.schema,
		OffsetsAdapter: sql.DefaultPostgreSQLOffsetsAdapter{},
		PollInterval:   poll,
	}, spoken{})
}

// Adds messages to a table, each in the envelope that says where it goes.
func (o outbox) add(db sql.ContextExecutor, n int, messages ...*message.Message) error {
	rows, err := sql.NewPublisher(db, sql.PublisherConfig{SchemaAdapter: o.schema}, spoken{})
	if err != nil {
		return err
	}
	out := forwarder.NewPublisher(rows, forwarder.PublisherConfig{ForwarderTopic: table(n)})
	return out.Publish(o.target, messages...)
}

// Puts the messages of these numbers there, to each table in turn.
func (o outbox) fill(from, to int) error {
	for n := range o.tables {
		for at := from + n; at < to; at += part * o.tables {
			batch := make([]*message.Message, 0, part)
			for i := at; i < to && len(batch) < part; i += o.tables {
				body, err := json.Marshal(nth(i))
				if err != nil {
					return err
				}
				batch = append(batch, message.NewMessage(watermill.NewUUID(), body))
			}
			if err := o.add(sql.BeginnerFromPgx(o.pool), n, batch...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Starts a forwarder for each table.
func (o outbox) forward(ctx context.Context, to message.Publisher, poll time.Duration) ([]*forwarder.Forwarder, error) {
	var all []*forwarder.Forwarder
	for n := range o.tables {
		from, err := o.subscriber(poll)
		if err != nil {
			return nil, err
		}
		one, err := forwarder.NewForwarder(from, to, watermill.NopLogger{}, forwarder.Config{
			ForwarderTopic: table(n),
		})
		if err != nil {
			return nil, err
		}
		go func() { fail(one.Run(ctx)) }()
		all = append(all, one)
	}
	for _, one := range all {
		<-one.Running()
	}
	return all, nil
}

// Waits until the broker has so many messages and all of them are written down as done, and returns
// how many are not.
func (o outbox) until(ctx context.Context, seen *tally, messages int) (int, error) {
	left := -1
	for deadline := time.Now().Add(patience); left != 0 && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond)
		// Counting rows costs the server: nobody does it before all are handled.
		if _, distinct := seen.counts(); distinct < messages {
			continue
		}
		var err error
		if left, err = o.behind(ctx); err != nil {
			return left, err
		}
	}
	return left, nil
}

// How many messages lie behind what is written down as done.
func (o outbox) behind(ctx context.Context) (int, error) {
	left := 0
	for n := range o.tables {
		count := fmt.Sprintf(`select count(*) from "watermill_%[1]s" where "offset" > coalesce((select
			max(offset_acked) from "watermill_offsets_%[1]s"), 0)`, table(n))
		part := 0
		if err := o.pool.QueryRow(ctx, count).Scan(&part); err != nil {
			return 0, err
		}
		left += part
	}
	return left, nil
}

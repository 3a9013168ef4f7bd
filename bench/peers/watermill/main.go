// Watermill's forwarder (Go): rows of tables go to RabbitMQ or Kafka, each confirmed; at least once, in
// the order of one table. What is done stays, behind an offset.
//
// Called as `PEER DATABASE-URL MESSAGES TARGET WARM-UP`, with the same words on its standard input and
// output as the programs in Rust beside it (see ../src/main.rs); with `PACE BEGINNING` behind them it
// sends the messages itself when it is time, so many a second, each with the nanoseconds since that
// beginning, by the clock that all processes of a machine share.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
)

// What differs from one peer to the next.
type settings struct {
	broker   func(settings) (message.Publisher, error)
	tables   int
	batch    int           // 0: its default
	poll     time.Duration // 0: its default
	channels int           // 0: its default, a new one for each message
}

// As it comes but with confirms, its fastest with one table in order, with many without, and its
// shortest way.
var known = map[string]settings{
	"watermill-default":  {broker: rabbitmq, tables: 1},
	"watermill":          {broker: rabbitmq, tables: 1, batch: 1_000, poll: 10 * time.Millisecond, channels: 1},
	"watermill-64":       {broker: rabbitmq, tables: 64, batch: 1_000, poll: 10 * time.Millisecond, channels: 64},
	"watermill-latency":  {broker: rabbitmq, tables: 1, batch: 1_000, poll: time.Millisecond, channels: 1},
	"watermill-kafka":    {broker: kafka, tables: 1, batch: 1_000, poll: 10 * time.Millisecond},
	"watermill-kafka-64": {broker: kafka, tables: 64, batch: 1_000, poll: 10 * time.Millisecond},
}

// What one run has to do.
type task struct {
	settings
	url      string
	messages int
	target   string // an exchange or a topic
	warmUp   int    // messages before the measured ones
	pace     int    // a second; 0: all wait when it begins
	// In nanoseconds.
	beginning int64
}

func main() {
	one, err := read(os.Args[1:])
	fail(err)
	fail(run(context.Background(), one))
}

func read(arguments []string) (task, error) {
	if len(arguments) != 5 && len(arguments) != 7 {
		return task{}, fmt.Errorf("PEER DATABASE-URL MESSAGES TARGET WARM-UP [PACE BEGINNING]")
	}
	chosen, isKnown := known[arguments[0]]
	if !isKnown {
		return task{}, fmt.Errorf("there is no peer `%s`", arguments[0])
	}
	one := task{settings: chosen, url: arguments[1], target: arguments[3]}
	var err error
	if one.messages, err = strconv.Atoi(arguments[2]); err != nil {
		return task{}, err
	}
	if one.warmUp, err = strconv.Atoi(arguments[4]); err != nil || len(arguments) == 5 {
		return one, err
	}
	if one.pace, err = strconv.Atoi(arguments[5]); err != nil {
		return task{}, err
	}
	one.beginning, err = strconv.ParseInt(arguments[6], 10, 64)
	return one, err
}

func run(ctx context.Context, one task) error {
	config, err := pgxpool.ParseConfig(one.url)
	if err != nil {
		return err
	}
	config.MaxConns = 80
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	to, err := one.broker(one.settings)
	if err != nil {
		return err
	}
	rows := outbox{
		pool: pool, schema: sql.DefaultPostgreSQLSchema{SubscribeBatchSize: one.batch},
		tables: one.tables, target: one.target,
	}
	seen := &tally{Publisher: to, distinct: make(map[string]struct{}, one.warmUp+one.messages)}
	begin, err := prepare(ctx, rows, seen, one)
	if err != nil {
		return err
	}
	orders := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err = orders.ReadString('\n'); err != nil {
		return err
	}
	started := time.Now()
	if err = begin(); err != nil {
		return err
	}
	left, err := rows.until(ctx, seen, one.warmUp+one.messages)
	if err != nil {
		return err
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

// Warms up, and returns what begins the measured part. The way to the broker stays open; a forwarder
// that ends closes its connection to the database.
func prepare(ctx context.Context, rows outbox, seen *tally, one task) (func() error, error) {
	if err := rows.initialize(one.poll); err != nil {
		return nil, err
	}
	if err := rows.fill(0, one.warmUp); err != nil {
		return nil, err
	}
	running, err := rows.forward(ctx, seen, one.poll)
	if err != nil {
		return nil, err
	}
	if left, err := rows.until(ctx, seen, one.warmUp); err != nil {
		return nil, err
	} else if left != 0 {
		return nil, fmt.Errorf("%d of those that warm up are left", left)
	}
	if one.pace > 0 {
		return func() error { return rows.sendAtPace(ctx, one) }, nil
	}
	for _, forwarder := range running {
		if err = forwarder.Close(); err != nil {
			return nil, err
		}
	}
	if err = rows.fill(one.warmUp, one.warmUp+one.messages); err != nil {
		return nil, err
	}
	if _, err = rows.pool.Exec(ctx, "analyze"); err != nil {
		return nil, err
	}
	return func() error {
		_, err := rows.forward(ctx, seen, one.poll)
		return err
	}, nil
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// River (Go): at least once; a job that is done stays, marked so, until it is cleaned up.
//
// Called as `PEER DATABASE-URL MESSAGES`, with the same words on its standard input and output as
// the programs in Rust beside it (see ../src/main.rs).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// Longer than anybody needs for what one run hands out.
const patience = 300 * time.Second

// Jobs in one call that adds them.
const part = 5_000

// The same body as the bench's own messages have.
type charge struct {
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
	Note    string `json:"note"`
}

func (charge) Kind() string { return "charge" }

func nth(n int) charge {
	return charge{
		Account: fmt.Sprintf("account-%09d", n),
		Cents:   100,
		Note: "quarterly settlement of the standing order, booked by the clearing desk after " +
			"the usual review; see the attached statement for the details of every single line",
	}
}

// Which messages were handled, and how often.
type tally struct {
	sync.Mutex
	handled  int
	distinct map[string]struct{}
}

func (t *tally) isFull(expected int) bool {
	t.Lock()
	defer t.Unlock()
	return len(t.distinct) >= expected
}

type handler struct {
	river.WorkerDefaults[charge]
	tally *tally
}

func (h *handler) Work(_ context.Context, job *river.Job[charge]) error {
	h.tally.Lock()
	defer h.tally.Unlock()
	h.tally.handled++
	h.tally.distinct[job.Args.Account] = struct{}{}
	return nil
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("PEER DATABASE-URL MESSAGES"))
	}
	messages, err := strconv.Atoi(os.Args[3])
	fail(err)
	config := &river.Config{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 100}},
	}
	switch os.Args[1] {
	case "river-default":
	case "river":
		// As many at once as its published benchmark has, and the shortest pause between fetches.
		config.Queues[river.QueueDefault] = river.QueueConfig{MaxWorkers: 2_000}
		config.FetchCooldown = time.Millisecond
		config.FetchPollInterval = 5 * time.Millisecond
	default:
		fail(fmt.Errorf("there is no peer `%s`", os.Args[1]))
	}
	fail(run(context.Background(), os.Args[2], messages, config))
}

func run(ctx context.Context, url string, messages int, config *river.Config) error {
	settings, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	settings.MaxConns = 50
	pool, err := pgxpool.NewWithConfig(ctx, settings)
	if err != nil {
		return err
	}
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return err
	}
	if _, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	seen := &tally{distinct: make(map[string]struct{}, messages)}
	config.Workers = river.NewWorkers()
	river.AddWorker(config.Workers, &handler{tally: seen})
	client, err := river.NewClient(driver, config)
	if err != nil {
		return err
	}
	for at := 0; at < messages; at += part {
		jobs := make([]river.InsertManyParams, 0, part)
		for n := at; n < min(at+part, messages); n++ {
			jobs = append(jobs, river.InsertManyParams{Args: nth(n)})
		}
		if _, err = client.InsertManyFast(ctx, jobs); err != nil {
			return err
		}
	}
	if _, err = pool.Exec(ctx, "analyze"); err != nil {
		return err
	}
	orders := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err = orders.ReadString('\n'); err != nil {
		return err
	}
	started := time.Now()
	if err = client.Start(ctx); err != nil {
		return err
	}
	left := -1
	for left != 0 && time.Since(started) < patience {
		time.Sleep(2 * time.Millisecond)
		// Counting rows costs the server: nobody does it before all are handled.
		if !seen.isFull(messages) {
			continue
		}
		count := "select count(*) from river_job where state <> 'completed'"
		if err = pool.QueryRow(ctx, count).Scan(&left); err != nil {
			return err
		}
	}
	seconds := time.Since(started).Seconds()
	seen.Lock()
	done := map[string]any{
		"seconds": seconds, "handled": seen.handled, "distinct": len(seen.distinct), "left": left,
	}
	seen.Unlock()
	line, err := json.Marshal(done)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	if _, err = orders.ReadString('\n'); err != nil {
		return err
	}
	return client.Stop(ctx)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

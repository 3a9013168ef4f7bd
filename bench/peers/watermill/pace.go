package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// A message that says when it was sent.
type ping struct {
	At   int64  `json:"at"`
	Note string `json:"note"`
}

// Sends at a steady pace, whatever becomes of what was sent: each in a transaction of its own.
func (o outbox) sendAtPace(ctx context.Context, one task) error {
	started := time.Now()
	sent := make(chan error, one.messages)
	for n := range one.messages {
		time.Sleep(time.Until(started.Add(time.Second * time.Duration(n) / time.Duration(one.pace))))
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return err
		}
		go func() { sent <- o.send(ctx, now.Nano()-one.beginning) }()
	}
	for range one.messages {
		if err := <-sent; err != nil {
			return err
		}
	}
	return nil
}

func (o outbox) send(ctx context.Context, at int64) error {
	body, err := json.Marshal(ping{At: at, Note: note})
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error {
		return o.add(sql.TxFromPgx(tx), 0, message.NewMessage(watermill.NewUUID(), body))
	})
}

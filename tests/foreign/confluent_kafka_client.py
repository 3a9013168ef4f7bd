"""A service that knows nothing of sagabus, with confluent-kafka: sends a command, hears the event.

    python confluent_kafka_client.py 127.0.0.1:9092 [PREFIX]

It sends the command `parcels.pack` as a CloudEvent (Kafka's binary binding), waits for the event
`parcels.packed` that the command causes, and prints it as a line of JSON.
"""

import json
import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaError, Producer

SECONDS = 60


def main(brokers, prefix=""):
    # A group of our own that begins at the oldest record, so the order of these does not matter.
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": prefix + "till",
        "auto.offset.reset": "earliest",
    })
    consumer.subscribe([prefix + "parcels.packed"])

    command = send(brokers, prefix + "parcels.pack.command", "parcels.pack", {"n": 7})
    show(receive(consumer), caused_by=command)
    consumer.close()


def send(brokers, topic, message_type, data):
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True})
    identity = str(uuid.uuid4())
    refused = []
    # The same identity twice: the second one changes nothing.
    for _ in range(2):
        producer.produce(
            topic,
            key="shelf-3",
            value=json.dumps(data),
            headers={
                "ce_specversion": "1.0",
                "ce_id": identity,
                "ce_source": "/till",
                "ce_type": message_type,
                "content-type": "application/json",
            },
            on_delivery=lambda error, _: error and refused.append(error),
        )
    left = producer.flush(SECONDS)
    if refused or left:
        sys.exit(f"the command was not taken: {refused or 'no answer'}")
    return identity


def receive(consumer):
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        record = consumer.poll(0.2)
        if record is None:
            continue
        if record.error() is None:
            return record
        if record.error().code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            sys.exit(str(record.error()))
    sys.exit(f"nothing came for {SECONDS} seconds")


def show(record, caused_by):
    headers = {name: value.decode() for name, value in record.headers()}
    assert headers["ce_specversion"] == "1.0" and headers["ce_id"], headers
    assert headers["content-type"] == "application/json", headers
    print(json.dumps({"type": headers["ce_type"], "source": headers["ce_source"],
                      "data": json.loads(record.value()), "caused_by": caused_by}))


if __name__ == "__main__":
    main(*sys.argv[1:])

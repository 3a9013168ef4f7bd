"""A service that knows nothing of sagabus, with pika: sends a command, hears the event.

    python pika_client.py amqp://guest:guest@127.0.0.1:5672 [NAMESPACE]

It sends the command `parcels.pack` as a CloudEvent (AMQP's binary binding), waits for the event
`parcels.packed` that the command causes, asks `parcels.ask`, waits for the answer, and prints each
message that it got as a line of JSON.
"""

import json
import sys
import uuid

import pika

SECONDS = 60


def main(url, namespace=""):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()  # From here on, publishing waits for the broker's word.

    # A queue of our own, bound to the event type's exchange. For answers, its name is enough.
    queue = channel.queue_declare("", exclusive=True).method.queue
    event_type = namespace + "event/parcels.packed"
    channel.exchange_declare(event_type, "fanout", durable=True)
    channel.queue_bind(queue, event_type)

    command = send(channel, namespace, "parcels.pack", {"n": 7})
    show(receive(channel, queue), caused_by=command)

    question = send(channel, namespace, "parcels.ask", {"n": 41}, reply_to=queue)
    show(receive(channel, queue), caused_by=question)
    connection.close()


def send(channel, namespace, message_type, data, reply_to=None):
    """Publishes a command to its type's exchange; fails if nobody takes it (`mandatory`)."""
    identity = str(uuid.uuid4())
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,  # It survives a restart of the broker.
        reply_to=reply_to,
        headers={
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": identity,
            "cloudEvents:source": "/till",
            "cloudEvents:type": message_type,
        },
    )
    exchange = namespace + "command/" + message_type
    # The same identity twice: the second one changes nothing.
    for _ in range(2):
        channel.basic_publish(exchange, "", json.dumps(data), properties, mandatory=True)
    return identity


def receive(channel, queue):
    for method, properties, body in channel.consume(queue, inactivity_timeout=SECONDS):
        if method is None:
            sys.exit(f"nothing came for {SECONDS} seconds")
        channel.basic_ack(method.delivery_tag)
        channel.cancel()
        return properties, body


def show(message, caused_by):
    properties, body = message
    attributes = {
        name.removeprefix("cloudEvents:"): value
        for name, value in properties.headers.items()
        if name.startswith("cloudEvents:")
    }
    assert attributes["specversion"] == "1.0" and attributes["id"], attributes
    assert properties.content_type == "application/json", properties.content_type
    print(json.dumps({"type": attributes["type"], "source": attributes["source"],
                      "data": json.loads(body), "caused_by": caused_by}))


if __name__ == "__main__":
    main(*sys.argv[1:])

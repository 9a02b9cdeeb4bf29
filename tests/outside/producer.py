"""A producer that uses Kafka and CloudEvents, and no code of Millrace.

    producer.py SERVERS TOPIC RESULTS MEDIA_TYPE FILE

Creates TOPIC. Publishes FILE as a CloudEvent in binary mode, twice, and as another event in structured mode. Then reads
the topic RESULTS until there is a result of both. Prints each result as a line of JSON.
"""

import json
import sys
import time

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

TIMEOUT_SECONDS = 60
SOURCE = "/cameras/7"


def create(servers: str, topic: str) -> None:
    client = AdminClient({"bootstrap.servers": servers})
    client.create_topics([NewTopic(topic, num_partitions=2)])[topic].result(TIMEOUT_SECONDS)


def publish(servers: str, topic: str, messages: list[KafkaMessage]) -> None:
    refused = []

    def delivered(error, _message):
        if error is not None:
            refused.append(error)

    producer = Producer({"bootstrap.servers": servers, "acks": "all"})
    for message in messages:
        producer.produce(topic, message.value, message.key, headers=message.headers, on_delivery=delivered)
    if producer.flush(TIMEOUT_SECONDS) or refused:
        raise KafkaException(refused or "some messages were not confirmed")


def results(servers: str, topic: str, wanted: set[str]) -> None:
    consumer = Consumer({
        "bootstrap.servers": servers,
        "group.id": f"outside-{topic}",
        "auto.offset.reset": "earliest",
        "topic.metadata.refresh.interval.ms": 500,
    })
    consumer.subscribe([topic])
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no result of {wanted}")
        message = consumer.poll(1.0)
        # Until the first worker has created the topic, there is an error.
        if message is None or message.error():
            continue
        event = from_kafka_event(KafkaMessage(dict(message.headers()), message.key(), message.value()))
        attributes = {name: str(value) for name, value in event.get_attributes().items()}
        print(json.dumps({"attributes": attributes, "data": event.get_data()}), flush=True)
        wanted.discard(attributes["causationid"])
    consumer.close()


def main() -> None:
    servers, topic, results_topic, media_type, file = sys.argv[1:]
    with open(file, "rb") as opened:
        data = opened.read()

    def event(event_id: str) -> CloudEvent:
        attributes = {"id": event_id, "source": SOURCE, "type": "shot", "datacontenttype": media_type}
        return CloudEvent(attributes, data)

    binary, structured = event("binary"), event("structured")
    create(servers, topic)
    publish(servers, topic, [to_binary_event(binary), to_binary_event(binary), to_structured_event(structured)])
    results(servers, results_topic, {"binary", "structured"})


main()

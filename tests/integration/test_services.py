"""What each service of the suite promises: if one of these fails, suspect it before the product."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError
from kombu import Connection, Queue
from sqlalchemy import create_engine, text

from tests.services.rabbitmq import RabbitMQ
from tests.services.swift import S3Bucket, SwiftServer, s3_client

PATIENCE_SECONDS = 30.0


class TestDatabases:
    def test_a_migrated_one_and_an_empty_one_are_apart(
        self, database_url: str, empty_database_url: str
    ) -> None:
        assert "alembic_version" in _tables(database_url)
        assert _tables(empty_database_url) == set()


def _tables(url: str) -> set[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        names = set(connection.scalars(text(query)))
    engine.dispose()
    return names


class TestRabbitMQ:
    QUEUE = Queue("promise", durable=True)

    @pytest.fixture
    def node(self, rabbitmq: RabbitMQ) -> Iterator[RabbitMQ]:
        """The node of the run, given back in order."""
        yield rabbitmq
        rabbitmq.start()

    def test_confirmed_messages_outlive_kill_on_the_same_address(
        self, node: RabbitMQ, broker_url: str
    ) -> None:
        self._publish(broker_url)
        node.kill()
        assert not node.running
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", node.port), timeout=5)
        node.start()
        with Connection(broker_url) as connection:
            message = self.QUEUE(connection.default_channel).get(no_ack=True)
        assert message is not None
        assert message.payload == {"n": 1}

    def test_stop_and_start_of_the_application(self, node: RabbitMQ, broker_url: str) -> None:
        node.stop_app()
        with pytest.raises(OSError, match=r"refused|reset"):
            Connection(broker_url, connect_timeout=5).connect()
        node.start_app()
        self._publish(broker_url)

    def test_a_memory_alarm_holds_publishers_until_it_is_cleared(
        self, node: RabbitMQ, broker_url: str
    ) -> None:
        node.raise_memory_alarm()
        published = threading.Event()

        def publish() -> None:
            self._publish(broker_url)
            published.set()

        publisher = threading.Thread(target=publish, daemon=True)
        try:
            publisher.start()
            assert not published.wait(1.0)
        finally:
            node.clear_memory_alarm()
        assert published.wait(PATIENCE_SECONDS)

    def test_each_test_has_a_vhost(self, rabbitmq: RabbitMQ, broker_url: str) -> None:
        self._publish(broker_url)
        with Connection(rabbitmq.url_of(rabbitmq.new_vhost())) as connection:
            queue = self.QUEUE(connection.default_channel)
            queue.declare()
            assert queue.get() is None

    def _publish(self, url: str) -> None:
        with Connection(url, transport_options={"confirm_publish": True}) as connection:
            connection.Producer().publish(
                {"n": 1}, routing_key="promise", declare=[self.QUEUE], delivery_mode=2
            )


class TestSwift:
    def test_objects_can_be_put_got_and_listed(self, s3_bucket: S3Bucket) -> None:
        client = s3_bucket.client()
        client.put_object(Bucket=s3_bucket.name, Key="a/b c", Body=b"0123456789")
        part = client.get_object(Bucket=s3_bucket.name, Key="a/b c", Range="bytes=2-4")
        assert part["Body"].read() == b"234"
        listing = client.list_objects_v2(Bucket=s3_bucket.name)
        assert [entry["Key"] for entry in listing["Contents"]] == ["a/b c"]

    def test_a_tampered_presigned_url_and_a_wrong_secret_are_refused(
        self, s3_bucket: S3Bucket
    ) -> None:
        client = s3_bucket.client()
        client.put_object(Bucket=s3_bucket.name, Key="mine", Body=b"mine")
        client.put_object(Bucket=s3_bucket.name, Key="other", Body=b"other")
        url = client.generate_presigned_url(
            "get_object", Params={"Bucket": s3_bucket.name, "Key": "mine"}
        )
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.read() == b"mine"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url.replace("/mine?", "/other?"), timeout=30)
        stranger = s3_client(
            s3_bucket.endpoint_url, s3_bucket.access_key, "wrong", s3_bucket.region
        )
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            stranger.get_object(Bucket=s3_bucket.name, Key="mine")

    def test_objects_outlive_kill_on_the_same_address(
        self, s3_server: SwiftServer, s3_bucket: S3Bucket
    ) -> None:
        s3_bucket.client().put_object(Bucket=s3_bucket.name, Key="k", Body=b"v")
        s3_server.kill()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", s3_server.port), timeout=5)
        s3_server.start()
        answer = s3_bucket.client().get_object(Bucket=s3_bucket.name, Key="k")
        assert answer["Body"].read() == b"v"

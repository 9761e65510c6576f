"""Brokers for tests: Apache Kafka itself, run from its published jars, and the embedded broker beside it.

A test takes the fixture `broker` to run against every kind, `secure_kafka` for TLS, passwords and access
rules, and `kafka_server` for a cluster of its own that it may stop and kill.
"""

"""Brings every message of a Kafka topic into Zoho CRM: lead, message record, note."""

__version__ = "1.0.0"

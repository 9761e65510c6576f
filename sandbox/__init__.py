"""Stand-ins for the two systems that the service talks to: Zoho CRM and Kafka."""

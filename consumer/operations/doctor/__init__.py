"""Is everything in place, and if not, what is to be done: asks Kafka and Zoho, and changes nothing."""

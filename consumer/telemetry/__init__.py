"""What an operator can see: logs, metrics, health."""

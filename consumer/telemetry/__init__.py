"""What an operator can see: logs, metrics, traces, health."""

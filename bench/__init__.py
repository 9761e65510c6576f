"""How fast, how frugal: the service and two baselines on the same work, against Zoho's documented limits."""

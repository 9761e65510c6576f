"""The service as its pages and probes see it: what the rooms know, in the words of the web room."""

"""The real corridor and the real Zoho room on virtual time, against a model of Kafka and the Zoho sandbox.

Everything that can go wrong is drawn from a seed; an oracle that reads only the topic, the committed offsets, the
dead letters and Zoho's journal tells which promise was broken.  `python -m tests.simulation --help`.
"""

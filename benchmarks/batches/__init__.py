"""What `benchmarks/batch.py` measures: batches of maps on dask workers."""

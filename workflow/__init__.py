"""Every command behind a table of results: as jobs in order (`jobs`), and as rules of Snakemake (`Snakefile`)."""

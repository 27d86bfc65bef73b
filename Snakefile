# The jobs of a file in configs/ (workflow.py), as many at a time as there are cores:
#
#   snakemake --cores 2 --directory again --configfile configs/brain_tumor_64.yaml --config source=DIR
#
# in a folder `again` of its own: certificates of other networks, such as those in results/, are not gone on with. DIR is
# an absolute path. Each job uses one core and goes on where it was interrupted. On a GPU give --cores 1.
import os
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir)))
from workflow import jobs

source = config.pop("source", None)
JOBS = jobs(dict(config), source)
os.environ["OMP_NUM_THREADS"] = "1"


def done(name):
    return f"runs/{config['name']}/done/{re.sub(r'[^A-Za-z0-9.]+', '_', name)}"


rule all:
    input:
        [done(job.name) for job in JOBS],


for job in JOBS:

    rule:
        name:
            re.sub(r"\W+", "_", job.name)
        input:
            [done(name) for name in job.needs],
        output:
            touch(done(job.name)),
        shell:
            shlex.join(["python", str(Path(workflow.basedir) / job.command[0]), *job.command[1:]])

"""The records of many runs in a few files.

A packed sweep has a folder ``packed`` instead of the folders of its runs. It holds

- ``claims-N.parquet``: for every run of the Nth batch its configuration and what Hydra was asked;
- ``N-STACK.parquet``: for members of a stack that ended together their results and curves, one row a run;
- ``N-STACK.safetensors``: the numbers of their checkpoints, members along the first axis.

A run that is in several of them has been tried several times: the largest N counts. A part is there once its Parquet
file is, which is written last. Each file is written beside its place and renamed.
"""

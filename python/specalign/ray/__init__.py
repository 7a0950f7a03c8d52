"""`specalign compare` over shards on a Ray cluster: `python -m specalign.ray compare STUDENT REFERENCE`.

Ray runs `specalign.shards` in its workers, on groups of shards. It takes the extra `specalign[ray]` on every node.
"""

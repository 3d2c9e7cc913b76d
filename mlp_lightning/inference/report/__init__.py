"""One page of what a run, a sweep or a model learned."""

"""Several trainings of one table that belong together: the folds of a cross-validation, the members of an ensemble."""

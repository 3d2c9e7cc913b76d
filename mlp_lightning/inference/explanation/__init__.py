"""What a trained model makes of its columns: permutation importance, partial dependence, and their pictures."""

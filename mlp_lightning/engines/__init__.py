"""What makes the optimizer steps: of one network through autograd, or of many as one stack."""

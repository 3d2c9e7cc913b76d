"""How good a trained model is: metrics, their tables and figures, and a record of them."""

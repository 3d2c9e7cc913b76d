"""How good a trained model is: metrics, their tables and pictures, and a record of them."""

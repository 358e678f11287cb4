"""A fleet of MLflow tracking servers that sleep at zero and wake inside one request."""

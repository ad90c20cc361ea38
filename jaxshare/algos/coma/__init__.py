"""COMA: counterfactual multi-agent policy gradients."""

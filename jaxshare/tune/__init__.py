"""Search of hyper-parameters: a batch of trials is one compiled sweep."""

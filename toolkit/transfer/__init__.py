"""Transfer of encoders: loading by name, features, linear probes, few-shot and zero-shot classifiers."""

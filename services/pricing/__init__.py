"""What usage costs. Pure: the holds before a request, the postings after it and the audit all ask `cost.lines`."""

"""The images of a request: brought, recognised and measured, so that its prompt can be counted before it is placed."""

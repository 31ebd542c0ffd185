"""Rate limits shared by many gateways: buckets in Valkey, leases of them in each gateway."""

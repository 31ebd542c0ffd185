"""The money: prices, payments, credits, refunds, invoices, and the audit that proves that it all adds up."""

"""The billing service: price books, rating, invoices that can be proved."""

"""Inside an SNP guest: a report over the owner's nonce, from whichever door its kernel has."""

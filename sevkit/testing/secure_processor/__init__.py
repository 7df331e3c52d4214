"""A simulated secure processor: the SEV and SEV-SNP firmware as state machines that compute."""

"""Fetching, deriving and checking data sets, before anything is trained on them."""

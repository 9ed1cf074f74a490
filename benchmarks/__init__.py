"""Speed against yardsticks, side by side in one run: quote the ratios, machines differ."""

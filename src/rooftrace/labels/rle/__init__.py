"""Tables of run lengths, as contests use them."""

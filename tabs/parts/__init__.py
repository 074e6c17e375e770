"""What a tab is laid out from: groups of widgets with what connects them."""

"""What the notebooks show: pictures, tables, claims, exploration, costs. It may import everything."""

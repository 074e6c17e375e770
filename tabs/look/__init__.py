"""How the page looks and feels: colours, rules, what stands where a video will be, and what the browser does itself."""

# Completion of memchargectl in fish: to be installed in /usr/share/fish/vendor_completions.d.
# The code comes from the program itself, so that both are always of one version.
COMPLETE=fish memchargectl 2>/dev/null | source

# Checks each file with the rules that SpamAssassin ships, without the network.
# Prints, separated by tabs: file, score, and the points of each rule.
use strict;
use warnings;
use Mail::SpamAssassin;

my ($state, @files) = @ARGV;
my $judge = Mail::SpamAssassin->new({
    local_tests_only   => 1,
    dont_copy_prefs    => 1,
    userstate_dir      => $state,
    userprefs_filename => "$state/none",
    LOCAL_STATE_DIR    => $state,    # not what sa-update may have fetched
    post_config_text   => "use_bayes 0\n",
});
$judge->init(1);

for my $file (@files) {
    open my $in, '<:raw', $file or die "$file: $!";
    my $content = do { local $/; <$in> };
    my $mail = $judge->parse($content);
    my $verdict = $judge->check($mail);
    my @hit = map { sprintf '%s %.1f', $_, $judge->{conf}{scores}{$_} // 1 }
        split /,/, $verdict->get_names_of_tests_hit;
    printf "%s\t%.3f\t%s\n", $file, $verdict->get_score, join ', ', @hit;
    $verdict->finish;
    $mail->finish;
}
